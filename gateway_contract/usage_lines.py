"""Usage lines: one finished call as the shipper sends it, and as the collector finds it in a stream entry.

A usage line is a JSON object on one line. It is built from Kong's serialized log by a whitelist, so that it
never holds a header, a query string or a key. It is not yet attributed: the two receipts are as they were found.

    v   1
    id  X-Kong-Request-Id: 32 hex digits, what a caller quotes in a dispute
    at  when Kong received the request, ms since 1970
    ru  receipt found in the request as the upstream got it ("" where none)
    ra  receipt or refusal note found in the answer ("" where none)
    sv, rt   names of Kong's service and route
    m, p     method, path (cut at 1,024 characters)
    st  status of the answer (499: the caller hung up)
    so  who answered: `upstream` or `kong`
    bi, bo   bytes of request and answer, headers included, as Kong counts them
    lt, lk, lp   latency in ms: whole, Kong's share, upstream's (-1 when the upstream was not called)
    ip  the caller's address
    rp  the answer header by which the upstream says that it repeated an earlier answer ("" where none)
    u   named billable units the upstream reported: {"tokens": "123"}, raw text as found (judged later)

A stream entry carries a batch of lines:

    shipper, segment      who ships, and from which spool segment (names are never used again)
    start, end            byte offsets in the segment: [start, end) is what this batch was made of
    shipped_up_to_ms      everything that finished before this moment has been shipped by this shipper, in this
                          entry or before it in the stream; 0 where it cannot say (it is catching up)
    lines                 the lines, joined by newlines

Offsets cover lines that were dropped as unreadable too; `dropped` says how many. An entry may hold dropped lines
only. A heartbeat (about one a second) has an empty segment, start = end = 0 and no lines.
"""

LINE_VERSION = 1
MAX_PATH_LENGTH = 1024

FIELD_SHIPPER = "shipper"
FIELD_SEGMENT = "segment"
FIELD_START = "start"
FIELD_END = "end"
FIELD_SHIPPED_UP_TO_MS = "shipped_up_to_ms"
FIELD_LINES = "lines"
FIELD_DROPPED = "dropped"

MAX_LINES_PER_ENTRY = 500
MAX_BYTES_PER_ENTRY = 512 * 1024
