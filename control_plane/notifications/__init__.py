"""Mail: templates, a queue, SMTP."""
