-- The description and the counters of an event. Served by the primary keys.
SELECT e.id, e.capacity, e.held, e.sold, e.seq, e.last_at, e.pending, e.confirmed, e.cancelled, e.expired,
       e.revenue, d.name, d.venue, d.starts_at, d.time_zone, d.currency, d.sales_start_at, d.sales_end_at,
       d.hold_seconds, d.cancel_cutoff_seconds, d.max_tickets_per_booking, d.max_tickets_per_user, d.status,
       d.version, d.created_at, d.updated_at
FROM events e JOIN event_details d ON d.event_id = e.id
WHERE e.id = ?1
