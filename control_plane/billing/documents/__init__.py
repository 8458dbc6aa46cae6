"""Invoices and credit notes as people read them: HTML for the screen and for print, and PDF.

Owns: what a document says, in words, and both of its forms.
Does not own: the figures (invoices, credit notes), who may read them (the API).
"""
