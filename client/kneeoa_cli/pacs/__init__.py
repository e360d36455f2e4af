"""Between a PACS and a server: radiographs come in, reports go back."""
