-- Inserts the counters of an event.
INSERT INTO events (id, capacity, held, sold, seq, last_at, pending, confirmed, cancelled, expired, revenue)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
