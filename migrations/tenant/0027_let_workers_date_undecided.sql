-- A send that is unknown again gets a new date (db/outbound/move_on.sql). Without the right to that, nothing that is not simply taken could be
-- written down: the right is asked for by the statement, not by the row.
GRANT UPDATE ON undecided TO mijra_worker;
