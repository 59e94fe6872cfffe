-- The cursors of the consumers of the ledger. Each consumer processes the entries of every event in their
-- order, and saves the number of the last one. A cursor may be behind. `destination` is the time at which the
-- consumer's destination was created, for example a stream: a cursor of another destination does not count.
CREATE TABLE cursors (
    consumer    TEXT    NOT NULL CHECK (length(consumer) BETWEEN 1 AND 64),
    event_id    BLOB    NOT NULL CHECK (length(event_id) = 16),
    destination INTEGER NOT NULL,
    seq         INTEGER NOT NULL CHECK (seq >= 0),
    PRIMARY KEY (consumer, event_id)
) STRICT, WITHOUT ROWID;
-- The previous version of the program still uses `published`. Its relay and this one may be active in turn:
-- each trusts the stream, and corrects its own cursors.
INSERT INTO cursors (consumer, event_id, destination, seq)
SELECT 'relay', event_id, stream, seq FROM published;

-- The caller's own texts, as a JSON object, or NULL if there are none.
ALTER TABLE bookings ADD COLUMN metadata TEXT;

-- The caller's own id of a booking, unique within its event. Bookings without one are in neither index.
ALTER TABLE bookings ADD COLUMN external_ref TEXT;
CREATE UNIQUE INDEX booking_external_ref ON bookings (event_id, external_ref)
    WHERE external_ref IS NOT NULL;
CREATE INDEX bookings_by_external_ref ON bookings (external_ref, id)
    WHERE external_ref IS NOT NULL;
