"""Words and looks of mails: one `<kind>.mail` each, laid out by base.html and base.txt."""
