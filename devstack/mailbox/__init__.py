"""A mailbox for development: takes every mail that the product sends, and shows it. Nothing goes further.

Owns: a small SMTP server on 127.0.0.1, the files that it keeps mails in, the page that shows them.
"""
