"""What operators see: metrics, spans and the access log. None of them ever holds content."""
