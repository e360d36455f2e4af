"""How good they are: metrics, reports, reference populations."""
