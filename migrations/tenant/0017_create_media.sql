-- Files of messages, from the reference that a provider gives to what lies in storage; and what providers say of people.
CREATE TABLE media (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    message_id uuid NOT NULL,
    -- Its place among the message's files, from 0.
    position int NOT NULL CHECK (position >= 0),
    channel_account_id uuid NOT NULL,
    provider text NOT NULL,
    channel text NOT NULL,
    -- The message's kind: how large such a file may be.
    kind text NOT NULL,
    -- As the provider named, and described, it.
    provider_media_id text,
    url text,
    declared_type text,
    declared_sha256 text,
    filename text,
    voice boolean NOT NULL DEFAULT false,
    -- The provider's time of the message.
    at timestamptz NOT NULL,
    -- waiting → stored; or failed (given up), refused (ours to refuse), expired (it is no longer to be had, or kept).
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'stored', 'failed', 'refused', 'expired')),
    -- Why it is not stored, or not yet: a word, and a sentence for a person.
    code text,
    reason text,
    -- Attempts that have failed and were its own or its provider's fault.
    attempts int NOT NULL DEFAULT 0,
    -- Claims of which nobody ever said what became: of all of them its bytes may be to blame, for they may end the process.
    claims int NOT NULL DEFAULT 0,
    -- Whose it is while it is being fetched, and until when.
    claim uuid,
    claimed_until timestamptz,
    storage_key text,
    size_bytes bigint,
    sha256 bytea CHECK (octet_length(sha256) = 32),
    -- As its bytes say.
    content_type text,
    width int,
    height int,
    duration_ms bigint,
    thumbnail_key text,
    -- What may not be kept for longer (an Instagram story) goes then.
    keep_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- When it was stored or given up.
    settled_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT media_position_key UNIQUE (tenant_id, message_id, position),
    CONSTRAINT media_stored CHECK (
        (state = 'stored') = (storage_key IS NOT NULL)
        AND (state <> 'stored' OR (size_bytes IS NOT NULL AND sha256 IS NOT NULL AND content_type IS NOT NULL))
    ),
    FOREIGN KEY (tenant_id, message_id) REFERENCES messages (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX media_by_storage_key ON media (tenant_id, storage_key) WHERE storage_key IS NOT NULL;
CREATE INDEX media_by_thumbnail_key ON media (tenant_id, thumbnail_key) WHERE thumbnail_key IS NOT NULL;
CREATE INDEX media_kept_until ON media (keep_until) WHERE state = 'stored' AND keep_until IS NOT NULL;

-- What a provider was asked about a person who has no name: at most once a day, whatever the answer.
CREATE TABLE contact_profiles (
    tenant_id uuid NOT NULL,
    contact_id uuid NOT NULL,
    -- The account that asks, and how its provider calls the person: by another name for each Page or account.
    channel_account_id uuid NOT NULL,
    provider text NOT NULL,
    provider_person_id text NOT NULL,
    -- waiting → known, or unavailable (the person has not consented, or has none).
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'known', 'unavailable')),
    code text,
    reason text,
    attempts int NOT NULL DEFAULT 0,
    -- It is not asked again before this.
    ask_again_at timestamptz NOT NULL,
    -- The avatar, if there is one: a copy, for the provider's link expires.
    storage_key text,
    content_type text,
    size_bytes bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    answered_at timestamptz,
    PRIMARY KEY (tenant_id, contact_id),
    FOREIGN KEY (tenant_id, contact_id) REFERENCES contacts (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
CREATE INDEX contact_profiles_by_storage_key ON contact_profiles (tenant_id, storage_key) WHERE storage_key IS NOT NULL;

-- What lies in storage, once however many refer to it: keys are made of what the bytes are. A row is written before its object
-- is, and goes after it.
CREATE TABLE media_objects (
    tenant_id uuid NOT NULL,
    key text NOT NULL,
    -- Then it is looked whether anybody refers to it; NULL: somebody did.
    check_at timestamptz,
    -- Nobody did, and until then it is being deleted; who wants to store the same waits.
    deleting_until timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
) WITH (fillfactor = 70);
CREATE INDEX media_objects_to_check ON media_objects (check_at) WHERE check_at IS NOT NULL;

-- Whoever lets go of an object (a file's time is over, its message or contact is deleted, by whatever way) need not think of it.
CREATE FUNCTION let_go_of_objects() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Also one that is due already is locked: who looks at it meanwhile would still see this reference, and forget the object.
    UPDATE media_objects
    SET check_at = least(check_at, now())
    WHERE tenant_id = OLD.tenant_id
        AND key IN (to_jsonb(OLD) ->> 'storage_key', to_jsonb(OLD) ->> 'thumbnail_key');
    RETURN NULL;
END $$;
CREATE TRIGGER media_deleted AFTER DELETE ON media
    FOR EACH ROW WHEN (OLD.storage_key IS NOT NULL) EXECUTE FUNCTION let_go_of_objects();
CREATE TRIGGER media_changed AFTER UPDATE ON media
    FOR EACH ROW WHEN (OLD.storage_key IS DISTINCT FROM NEW.storage_key OR OLD.thumbnail_key IS DISTINCT FROM NEW.thumbnail_key)
    EXECUTE FUNCTION let_go_of_objects();
CREATE TRIGGER contact_profiles_deleted AFTER DELETE ON contact_profiles
    FOR EACH ROW WHEN (OLD.storage_key IS NOT NULL) EXECUTE FUNCTION let_go_of_objects();
CREATE TRIGGER contact_profiles_changed AFTER UPDATE ON contact_profiles
    FOR EACH ROW WHEN (OLD.storage_key IS DISTINCT FROM NEW.storage_key) EXECUTE FUNCTION let_go_of_objects();

SELECT isolate_tenants(t) FROM unnest(ARRAY['media', 'contact_profiles', 'media_objects']::regclass[]) t;
GRANT SELECT, DELETE ON media, contact_profiles TO mijra_api;
-- Whoever deletes a message or a contact lets go of its files.
GRANT SELECT, UPDATE (check_at) ON media_objects TO mijra_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON media, contact_profiles, media_objects TO mijra_worker;
