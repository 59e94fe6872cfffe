-- Events, their counters, bookings, refunds and the ledger. Ids are 16 bytes (UUIDv7), instants are whole
-- microseconds since the Unix epoch, and money is in minor units. The CHECK constraints repeat the rules of
-- the domain: even if the program has a bug, tickets cannot be sold twice, and a booking cannot be in two
-- states at once.

-- The narrow row that every booking changes, separate from the description, which rarely changes.
CREATE TABLE events (
    id        BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    capacity  INTEGER NOT NULL CHECK (capacity BETWEEN 1 AND 1000000000),
    held      INTEGER NOT NULL CHECK (held >= 0),
    sold      INTEGER NOT NULL CHECK (sold >= 0),
    seq       INTEGER NOT NULL CHECK (seq >= 1),
    last_at   INTEGER NOT NULL,
    pending   INTEGER NOT NULL CHECK (pending >= 0),
    confirmed INTEGER NOT NULL CHECK (confirmed >= 0),
    cancelled INTEGER NOT NULL CHECK (cancelled >= 0),
    expired   INTEGER NOT NULL CHECK (expired >= 0),
    revenue   TEXT    NOT NULL, -- a decimal integer that may need more than 64 bits
    CONSTRAINT event_capacity CHECK (held + sold <= capacity)
) STRICT, WITHOUT ROWID;

CREATE TABLE event_details (
    event_id                BLOB    NOT NULL PRIMARY KEY REFERENCES events (id),
    name                    TEXT    NOT NULL,
    venue                   TEXT    NOT NULL,
    starts_at               INTEGER NOT NULL,
    time_zone               TEXT,
    currency                TEXT    NOT NULL CHECK (length(currency) = 3),
    sales_start_at          INTEGER,
    sales_end_at            INTEGER,
    hold_seconds            INTEGER NOT NULL CHECK (hold_seconds BETWEEN 1 AND 2592000),
    cancel_cutoff_seconds   INTEGER NOT NULL CHECK (cancel_cutoff_seconds >= 0),
    max_tickets_per_booking INTEGER NOT NULL CHECK (max_tickets_per_booking >= 1),
    max_tickets_per_user    INTEGER CHECK (max_tickets_per_user >= 1),
    status                  TEXT    NOT NULL CHECK (status IN ('onSale', 'paused', 'cancelled')),
    version                 INTEGER NOT NULL CHECK (version >= 1),
    created_at              INTEGER NOT NULL,
    updated_at              INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ticket_types (
    event_id BLOB    NOT NULL REFERENCES events (id),
    place    INTEGER NOT NULL CHECK (place BETWEEN 0 AND 49),
    id       BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),
    name     TEXT    NOT NULL,
    price    INTEGER NOT NULL CHECK (price BETWEEN 0 AND 1000000000000),
    capacity INTEGER CHECK (capacity BETWEEN 1 AND 1000000000),
    held     INTEGER NOT NULL CHECK (held >= 0),
    sold     INTEGER NOT NULL CHECK (sold >= 0),
    PRIMARY KEY (event_id, place),
    CONSTRAINT ticket_type_capacity CHECK (capacity IS NULL OR held + sold <= capacity)
) STRICT, WITHOUT ROWID;

-- items: [["<ticket type, 32 hexadecimal digits>", quantity, unit price, "<name>"], …]; it never changes.
CREATE TABLE bookings (
    id                  BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    event_id            BLOB    NOT NULL,
    user_id             TEXT    NOT NULL CHECK (length(user_id) BETWEEN 1 AND 128),
    status              TEXT    NOT NULL,
    version             INTEGER NOT NULL CHECK (version >= 1),
    last_seq            INTEGER NOT NULL CHECK (last_seq >= 1),
    items               TEXT    NOT NULL,
    currency            TEXT    NOT NULL CHECK (length(currency) = 3),
    total               INTEGER NOT NULL CHECK (total >= 0),
    hold_expires_at     INTEGER NOT NULL,
    payment_method      TEXT,
    transaction_id      TEXT,
    confirmed_at        INTEGER,
    cancelled_at        INTEGER,
    cancellation_reason TEXT,
    refunded            INTEGER NOT NULL DEFAULT 0 CHECK (refunded IN (0, 1)),
    expired_at          INTEGER,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    CONSTRAINT booking_state CHECK (
        (transaction_id IS NULL) = (confirmed_at IS NULL)
        AND CASE status
            WHEN 'pending'   THEN confirmed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL
            WHEN 'confirmed' THEN confirmed_at IS NOT NULL AND cancelled_at IS NULL AND expired_at IS NULL
            WHEN 'cancelled' THEN cancelled_at IS NOT NULL AND expired_at IS NULL
            WHEN 'expired'   THEN confirmed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NOT NULL
            ELSE 0 END
        AND (cancellation_reason IS NULL OR status = 'cancelled')
        AND (refunded = 0 OR (status = 'cancelled' AND confirmed_at IS NOT NULL))
    )
) STRICT, WITHOUT ROWID;

-- "My bookings", newest first.
CREATE INDEX bookings_by_user ON bookings (user_id, id);
-- The oldest unpaid holds of an event. Small: a booking leaves it when it is paid or freed.
CREATE INDEX bookings_held ON bookings (event_id, hold_expires_at, id) WHERE status = 'pending';

-- Number of tickets of each user, only for events with a limit per user. The limit is in the same row as the
-- count, so that the database itself rejects a count that exceeds it.
CREATE TABLE user_limits (
    event_id    BLOB    NOT NULL,
    user_id     TEXT    NOT NULL,
    tickets     INTEGER NOT NULL CHECK (tickets >= 0),
    max_tickets INTEGER NOT NULL CHECK (max_tickets >= 1),
    PRIMARY KEY (event_id, user_id),
    CONSTRAINT user_limit CHECK (tickets <= max_tickets)
) STRICT, WITHOUT ROWID;

-- Append-only, never pruned. The primary key also finds an event's bookings, because each has an entry.
-- lines: [["<ticket type, 32 hexadecimal digits>", quantity], …].
CREATE TABLE ledger (
    event_id        BLOB    NOT NULL,
    seq             INTEGER NOT NULL CHECK (seq >= 1),
    type            TEXT    NOT NULL,
    booking_id      BLOB,
    refund_id       BLOB,
    lines           TEXT    NOT NULL,
    quantity        INTEGER NOT NULL CHECK (quantity >= 0),
    from_status     TEXT,
    to_status       TEXT,
    available_after INTEGER NOT NULL CHECK (available_after >= 0),
    previous_seq    INTEGER CHECK (previous_seq < seq),
    actor           TEXT    NOT NULL,
    request_id      TEXT    NOT NULL,
    at              INTEGER NOT NULL,
    PRIMARY KEY (event_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE refunds (
    id                 BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    booking_id         BLOB    NOT NULL,
    event_id           BLOB    NOT NULL,
    transaction_id     TEXT    NOT NULL,
    amount             INTEGER NOT NULL CHECK (amount >= 0),
    currency           TEXT    NOT NULL CHECK (length(currency) = 3),
    status             TEXT    NOT NULL CHECK (status IN ('requested', 'succeeded', 'failed')),
    reason             TEXT    NOT NULL,
    provider_reference TEXT,
    created_at         INTEGER NOT NULL,
    settled_at         INTEGER,
    CONSTRAINT one_refund_per_payment UNIQUE (booking_id, transaction_id),
    CONSTRAINT refund_settled CHECK ((status = 'requested') = (settled_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX refunds_by_status ON refunds (status, id);
CREATE INDEX refunds_by_event ON refunds (event_id);

-- Responses that are stored for a day. A request that is repeated with its Idempotency-Key gets the stored
-- response and is not executed again. A row is written in the transaction of the change.
CREATE TABLE idempotency (
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    answer      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_by_age ON idempotency (created_at);
