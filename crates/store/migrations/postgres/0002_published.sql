-- How far the ledger of each event is on the stream of messages, as far as the relay has noted. Apart from the
-- events, whose row every booking changes. A note and no truth: the stream itself says what is on it.
CREATE TABLE published (
    event_id uuid   NOT NULL PRIMARY KEY,
    stream   bigint NOT NULL, -- when the stream was made; a note about another stream does not count
    seq      bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 50);
