-- Chores and filtered lists read their page and nothing else, however many bookings there are.

-- Unpaid holds of all events by deadline: what the clean-up asks for. Small: a booking leaves it when it is paid or
-- freed.
CREATE INDEX bookings_due ON bookings (hold_expires_at, id) WHERE status = 'pending';
-- An event's bookings, in all or in one status: lists, and what is live of a cancelled event.
CREATE INDEX bookings_by_event ON bookings (event_id, status, id);
-- All bookings in one status.
CREATE INDEX bookings_by_status ON bookings (status, id);
-- Cancelled events are few.
CREATE INDEX event_details_cancelled ON event_details (event_id) WHERE status = 'cancelled';
