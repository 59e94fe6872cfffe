-- The cursors of the consumers of the ledger. Each consumer processes the entries of every event in their
-- order, and saves the number of the last one. A cursor may be behind. `destination` is the time at which the
-- consumer's destination was created, for example a stream: a cursor of another destination does not count.
-- Half of each page stays free, so that an update does not write to the index.
CREATE TABLE IF NOT EXISTS cursors (
    consumer    text   NOT NULL CHECK (length(consumer) BETWEEN 1 AND 64),
    event_id    uuid   NOT NULL,
    destination bigint NOT NULL,
    seq         bigint NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (consumer, event_id)
) WITH (fillfactor = 50);
-- The previous version of the program still uses `published`. Its relay and this one may be active in turn:
-- each trusts the stream, and corrects its own cursors.
INSERT INTO cursors (consumer, event_id, destination, seq)
SELECT 'relay', event_id, stream, seq FROM published
ON CONFLICT DO NOTHING;

-- The caller's own texts, as a JSON object, or NULL if there are none.
ALTER TABLE bookings ADD COLUMN IF NOT EXISTS metadata text;

-- The caller's own id of a booking, unique within its event. Bookings without one are in neither index.
ALTER TABLE bookings ADD COLUMN IF NOT EXISTS external_ref text;
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS booking_external_ref ON bookings (event_id, external_ref)
    WHERE external_ref IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS bookings_by_external_ref ON bookings (external_ref, id)
    WHERE external_ref IS NOT NULL;
