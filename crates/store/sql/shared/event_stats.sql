-- The tallies of every event. Reads the events, not their bookings.
SELECT d.currency, {e.event_tallies}
FROM events e JOIN event_details d ON d.event_id = e.id
