"""Names of the headers that the gateway reads and writes."""

RECEIPT = "X-Km-Receipt"
REQUEST_ID = "X-Kong-Request-Id"

# to the upstream
CONSUMER_ID = "X-Consumer-ID"
CONSUMER_CUSTOM_ID = "X-Consumer-Custom-ID"
CONSUMER_USERNAME = "X-Consumer-Username"
CREDENTIAL_IDENTIFIER = "X-Credential-Identifier"
ACCOUNT = "X-Km-Account"
PLAN = "X-Km-Plan"
MODE = "X-Km-Mode"
# "true" on calls without a key that go on under the fallback key, as Kong's own auth plugins say it
ANONYMOUS = "X-Anonymous-Consumer"

# to the caller
LIMIT = "X-RateLimit-Limit"
REMAINING = "X-RateLimit-Remaining"
RESET = "X-RateLimit-Reset"
RETRY_AFTER = "Retry-After"
RATE_LIMIT = "RateLimit"
RATE_LIMIT_POLICY = "RateLimit-Policy"
# only where a plugin runs in `dry_run`: the outcome that the call would have had, and the limit's name
WOULD_REFUSE = "X-Km-Would-Refuse"

DEFAULT_KEY_HEADERS = ("apikey", "x-api-key")
# by which an upstream says that it repeated an earlier answer
DEFAULT_REPLAY_HEADERS = ("idempotent-replayed",)
REDACTED = "redacted"
