-- Inserts or updates the description of an event.
INSERT INTO event_details (event_id, name, venue, starts_at, time_zone, currency, sales_start_at,
       sales_end_at, hold_seconds, cancel_cutoff_seconds, max_tickets_per_booking, max_tickets_per_user,
       status, version, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)
ON CONFLICT (event_id) DO UPDATE SET name = ?2, venue = ?3, starts_at = ?4, time_zone = ?5,
       sales_start_at = ?7, sales_end_at = ?8, hold_seconds = ?9, cancel_cutoff_seconds = ?10,
       max_tickets_per_booking = ?11, max_tickets_per_user = ?12, status = ?13, version = ?14,
       updated_at = ?16
WHERE version < ?14
