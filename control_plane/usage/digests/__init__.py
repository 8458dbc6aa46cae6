"""Digests: each sealed hour of an account is fixed by a Merkle root, which its owner can check against receipts.

Owns: leaves, trees and proofs, the chain of digests (`usage_digests`), what `km verify` checks.
Does not own: sealing (`rollups`), the events themselves (`store`), receipts (`gateway_contract`).
"""
