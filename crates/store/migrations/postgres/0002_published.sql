-- The relay's cursors: the last entry of each event's ledger that is published on the stream. In a table of
-- its own, because every booking changes the row in `events`. A cursor may be behind. The stream is
-- authoritative for the messages that it has.
CREATE TABLE published (
    event_id uuid   NOT NULL PRIMARY KEY,
    stream   bigint NOT NULL, -- when the stream was made; a note about another stream does not count
    seq      bigint NOT NULL CHECK (seq >= 0)
) WITH (fillfactor = 50);
