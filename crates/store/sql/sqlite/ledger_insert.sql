-- Inserts a ledger entry. A duplicate number violates the primary key.
INSERT INTO ledger ({ledger}) VALUES ({ledger ?1})
