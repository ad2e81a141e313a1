-- A webhook for many accounts that nobody has is one row with its body once, not a row and a body for each of them.
ALTER TABLE control.unroutable
    -- Further ids of the same webhook, the first of them.
    ADD COLUMN other_ids jsonb NOT NULL DEFAULT '[]',
    -- How many further ids there are.
    ADD COLUMN others int NOT NULL DEFAULT 0;
