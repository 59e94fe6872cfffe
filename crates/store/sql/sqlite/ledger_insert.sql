-- Inserts a ledger entry. A duplicate number violates the primary key.
INSERT INTO ledger (event_id, seq, type, booking_id, refund_id, lines, quantity, from_status, to_status,
       available_after, previous_seq, actor, request_id, at, trace)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
