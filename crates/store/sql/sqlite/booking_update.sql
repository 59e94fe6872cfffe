-- Updates a booking. Guarded by the version that was loaded: no other transaction has changed it since.
UPDATE bookings SET status = ?2, version = ?3, last_seq = ?4, transaction_id = ?5, confirmed_at = ?6,
       cancelled_at = ?7, cancellation_reason = ?8, refunded = ?9, expired_at = ?10, updated_at = ?11
WHERE id = ?1 AND version = ?12
