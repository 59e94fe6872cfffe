-- With these indexes, chores and filtered lists read only the rows of their page, regardless of the number of
-- bookings.

-- Unpaid holds of all events by deadline, for the clean-up. Small: a booking leaves it when it is paid or
-- freed.
CREATE INDEX bookings_due ON bookings (hold_expires_at, id) WHERE status = 'pending';
-- An event's bookings, in all statuses or in one: for lists, and for the bookings of a cancelled event that
-- are still to be cancelled.
CREATE INDEX bookings_by_event ON bookings (event_id, status, id);
-- All bookings in one status.
CREATE INDEX bookings_by_status ON bookings (status, id);
-- Cancelled events are few.
CREATE INDEX event_details_cancelled ON event_details (event_id) WHERE status = 'cancelled';
