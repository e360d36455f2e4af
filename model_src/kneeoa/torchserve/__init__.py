"""What both handlers need of TorchServe: requests and metrics. It imports nothing of TorchServe."""
