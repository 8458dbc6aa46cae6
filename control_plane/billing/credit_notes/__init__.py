"""Credit notes: what is taken back of a final invoice.

Owns: credit notes, their numbers' series `CN`, how tax is taken back with them, where the money goes.
Does not own: what the next invoice gives back by itself (invoices), requests taken out of the count (usage).
"""
