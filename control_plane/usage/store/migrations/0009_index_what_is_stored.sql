-- The indexes for events that are stored already; in the background.
ALTER TABLE {local:usage_events}{on_cluster}
    MATERIALIZE INDEX by_request,
    MATERIALIZE INDEX by_key,
    MATERIALIZE INDEX by_endpoint,
    MATERIALIZE INDEX by_status
