-- Inserts the counters of an event. A duplicate id violates the primary key.
INSERT INTO events ({event}) VALUES ({event ?1})
