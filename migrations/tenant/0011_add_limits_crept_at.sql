-- When a lowered rate last crept back: it does so once a second, however many schedulers there are.
ALTER TABLE limits ADD COLUMN crept_at timestamptz;
