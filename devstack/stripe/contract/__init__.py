"""What requests and answers may hold, read from the installed SDK."""
