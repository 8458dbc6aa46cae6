"""The contract between the gateway and the control plane: every byte form both sides read and write.

Owns: API key shape, Redis names, key and account records, receipts, usage lines and events, stream entries,
header names, the privacy expression of Kong's file-log, plugin names.
Does not own: any I/O, any policy. Standard library only, so that it can be read anywhere.
"""
