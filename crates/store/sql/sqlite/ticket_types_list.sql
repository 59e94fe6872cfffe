-- The ticket types of a page of events, each event's in the order that its organiser chose. Served by the
-- primary key.
SELECT {ticket_type} FROM ticket_types
WHERE event_id BETWEEN ?1 AND ?2 AND length(event_id) = 16 ORDER BY event_id, place
