-- Inserts a booking.
INSERT INTO bookings (id, event_id, user_id, status, version, last_seq, items, currency, total,
       hold_expires_at, payment_method, transaction_id, confirmed_at, cancelled_at, cancellation_reason,
       refunded, expired_at, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)
