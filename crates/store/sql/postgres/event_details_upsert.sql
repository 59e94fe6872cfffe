-- Inserts or updates the descriptions of events. Guarded by the version, which only increases.
WITH written AS (
    INSERT INTO event_details AS d (event_id, name, venue, starts_at, time_zone, currency, sales_start_at,
           sales_end_at, hold_seconds, cancel_cutoff_seconds, max_tickets_per_booking, max_tickets_per_user,
           status, version, created_at, updated_at)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
           $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::text[],
           $14::bigint[], $15::bigint[], $16::bigint[])
    ON CONFLICT (event_id) DO UPDATE SET name = excluded.name, venue = excluded.venue,
           starts_at = excluded.starts_at, time_zone = excluded.time_zone,
           sales_start_at = excluded.sales_start_at, sales_end_at = excluded.sales_end_at,
           hold_seconds = excluded.hold_seconds, cancel_cutoff_seconds = excluded.cancel_cutoff_seconds,
           max_tickets_per_booking = excluded.max_tickets_per_booking,
           max_tickets_per_user = excluded.max_tickets_per_user, status = excluded.status,
           version = excluded.version, updated_at = excluded.updated_at
    WHERE d.version < excluded.version
    RETURNING 1)
SELECT 1 / (count(*) = cardinality($1))::int FROM written
