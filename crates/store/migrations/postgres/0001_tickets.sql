-- Events, their counters, bookings, refunds and the ledger: the same rows as in SQLite. Instants are whole
-- microseconds since the Unix epoch, and money is in minor units. Every number except a sum is a bigint, so
-- that the wire protocol needs only one integer type. The CHECK constraints repeat the rules of the domain:
-- even if the program has a bug, tickets cannot be sold twice, and a booking cannot be in two states at once.

-- The narrow row that every booking changes, separate from the description, which rarely changes. No column
-- that changes is indexed, and pages are half empty, so that an update stays on its page (HOT).
CREATE TABLE events (
    id        uuid    NOT NULL PRIMARY KEY,
    capacity  bigint  NOT NULL CONSTRAINT event_capacity_range CHECK (capacity BETWEEN 1 AND 1000000000),
    held      bigint  NOT NULL CHECK (held >= 0),
    sold      bigint  NOT NULL CHECK (sold >= 0),
    seq       bigint  NOT NULL CHECK (seq >= 1),
    last_at   bigint  NOT NULL,
    pending   bigint  NOT NULL CHECK (pending >= 0),
    confirmed bigint  NOT NULL CHECK (confirmed >= 0),
    cancelled bigint  NOT NULL CHECK (cancelled >= 0),
    expired   bigint  NOT NULL CHECK (expired >= 0),
    revenue   numeric NOT NULL CHECK (revenue = trunc(revenue)), -- may need more than 64 bits
    CONSTRAINT event_capacity CHECK (held + sold <= capacity)
) WITH (fillfactor = 50);

CREATE TABLE event_details (
    event_id                uuid   NOT NULL PRIMARY KEY REFERENCES events (id),
    name                    text   NOT NULL,
    venue                   text   NOT NULL,
    starts_at               bigint NOT NULL,
    time_zone               text,
    currency                text   NOT NULL CHECK (length(currency) = 3),
    sales_start_at          bigint,
    sales_end_at            bigint,
    hold_seconds            bigint NOT NULL CHECK (hold_seconds BETWEEN 1 AND 2592000),
    cancel_cutoff_seconds   bigint NOT NULL CHECK (cancel_cutoff_seconds >= 0),
    max_tickets_per_booking bigint NOT NULL CHECK (max_tickets_per_booking >= 1),
    max_tickets_per_user    bigint CHECK (max_tickets_per_user >= 1),
    status                  text   NOT NULL CHECK (status IN ('onSale', 'paused', 'cancelled')),
    version                 bigint NOT NULL CHECK (version >= 1),
    created_at              bigint NOT NULL,
    updated_at              bigint NOT NULL
);

CREATE TABLE ticket_types (
    event_id uuid   NOT NULL REFERENCES events (id),
    place    bigint NOT NULL CHECK (place BETWEEN 0 AND 49),
    id       uuid   NOT NULL UNIQUE,
    name     text   NOT NULL,
    price    bigint NOT NULL CHECK (price BETWEEN 0 AND 1000000000000),
    capacity bigint CHECK (capacity BETWEEN 1 AND 1000000000),
    held     bigint NOT NULL CHECK (held >= 0),
    sold     bigint NOT NULL CHECK (sold >= 0),
    PRIMARY KEY (event_id, place),
    CONSTRAINT ticket_type_capacity CHECK (capacity IS NULL OR held + sold <= capacity)
) WITH (fillfactor = 50);

-- items: [["<ticket type, 32 hexadecimal digits>", quantity, unit price, "<name>"], …]; it never changes.
CREATE TABLE bookings (
    id                  uuid    NOT NULL PRIMARY KEY,
    event_id            uuid    NOT NULL,
    user_id             text    NOT NULL CHECK (length(user_id) BETWEEN 1 AND 128),
    status              text    NOT NULL,
    version             bigint  NOT NULL CHECK (version >= 1),
    last_seq            bigint  NOT NULL CHECK (last_seq >= 1),
    items               text    NOT NULL,
    currency            text    NOT NULL CHECK (length(currency) = 3),
    total               bigint  NOT NULL CHECK (total >= 0),
    hold_expires_at     bigint  NOT NULL,
    payment_method      text,
    transaction_id      text,
    confirmed_at        bigint,
    cancelled_at        bigint,
    cancellation_reason text,
    refunded            boolean NOT NULL DEFAULT false,
    expired_at          bigint,
    created_at          bigint  NOT NULL,
    updated_at          bigint  NOT NULL,
    CONSTRAINT booking_state CHECK (
        (transaction_id IS NULL) = (confirmed_at IS NULL)
        AND CASE status
            WHEN 'pending'   THEN confirmed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL
            WHEN 'confirmed' THEN confirmed_at IS NOT NULL AND cancelled_at IS NULL AND expired_at IS NULL
            WHEN 'cancelled' THEN cancelled_at IS NOT NULL AND expired_at IS NULL
            WHEN 'expired'   THEN confirmed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NOT NULL
            ELSE false END
        AND (cancellation_reason IS NULL OR status = 'cancelled')
        AND (NOT refunded OR (status = 'cancelled' AND confirmed_at IS NOT NULL))
    )
) WITH (fillfactor = 80);

-- "My bookings", newest first.
CREATE INDEX bookings_by_user ON bookings (user_id, id);
-- The oldest unpaid holds of an event. Small: a booking leaves it when it is paid or freed.
CREATE INDEX bookings_held ON bookings (event_id, hold_expires_at, id) WHERE status = 'pending';

-- Number of tickets of each user, only for events with a limit per user. The limit is in the same row as the
-- count, so that the database itself rejects a count that exceeds it.
CREATE TABLE user_limits (
    event_id    uuid   NOT NULL,
    user_id     text   NOT NULL,
    tickets     bigint NOT NULL CHECK (tickets >= 0),
    max_tickets bigint NOT NULL CHECK (max_tickets >= 1),
    PRIMARY KEY (event_id, user_id),
    CONSTRAINT user_limit CHECK (tickets <= max_tickets)
) WITH (fillfactor = 80);

-- Append-only, never pruned. The primary key also finds an event's bookings, because each has an entry.
-- lines: [["<ticket type, 32 hexadecimal digits>", quantity], …].
CREATE TABLE ledger (
    event_id        uuid   NOT NULL,
    seq             bigint NOT NULL CHECK (seq >= 1),
    type            text   NOT NULL,
    booking_id      uuid,
    refund_id       uuid,
    lines           text   NOT NULL,
    quantity        bigint NOT NULL CHECK (quantity >= 0),
    from_status     text,
    to_status       text,
    available_after bigint NOT NULL CHECK (available_after >= 0),
    previous_seq    bigint CHECK (previous_seq < seq),
    actor           text   NOT NULL,
    request_id      text   NOT NULL,
    at              bigint NOT NULL,
    PRIMARY KEY (event_id, seq)
);

CREATE TABLE refunds (
    id                 uuid   NOT NULL PRIMARY KEY,
    booking_id         uuid   NOT NULL,
    event_id           uuid   NOT NULL,
    transaction_id     text   NOT NULL,
    amount             bigint NOT NULL CHECK (amount >= 0),
    currency           text   NOT NULL CHECK (length(currency) = 3),
    status             text   NOT NULL CHECK (status IN ('requested', 'succeeded', 'failed')),
    reason             text   NOT NULL,
    provider_reference text,
    created_at         bigint NOT NULL,
    settled_at         bigint,
    CONSTRAINT one_refund_per_payment UNIQUE (booking_id, transaction_id),
    CONSTRAINT refund_settled CHECK ((status = 'requested') = (settled_at IS NULL))
);

CREATE INDEX refunds_by_status ON refunds (status, id);
CREATE INDEX refunds_by_event ON refunds (event_id);

-- Responses that are stored for a day. A request that is repeated with its Idempotency-Key gets the stored
-- response and is not executed again. A row is written in the transaction of the change.
CREATE TABLE idempotency (
    scope       text   NOT NULL,
    key         text   NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    fingerprint bytea  NOT NULL CHECK (length(fingerprint) = 32),
    answer      bytea  NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE INDEX idempotency_by_age ON idempotency (created_at);
