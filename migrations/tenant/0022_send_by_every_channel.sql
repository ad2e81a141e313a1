-- What sending by every channel needs: by which name an account reaches a person, what a send takes of which limits, and how an account is called.
-- Whoever waits behind a long transaction holds up everybody behind them: rather try again later.
SET LOCAL lock_timeout = '5s';
ALTER TABLE contact_aliases
    -- Messenger's and Instagram's ids of a person hold for one account; where it is not known, whoever tries finds out.
    ADD COLUMN channel_account_id uuid;

ALTER TABLE sends
    -- What it takes of its account's rate: the segments of a text message, else 1 (providers/twilio section 9).
    ADD COLUMN units smallint NOT NULL DEFAULT 1,
    -- Films and recordings, which have a rate of their own (providers/messenger section 8, providers/instagram section 6).
    ADD COLUMN heavy boolean NOT NULL DEFAULT false,
    -- A person's answer, which some channels take for seven days (providers/messenger section 6, providers/instagram section 3.2).
    ADD COLUMN human_agent boolean NOT NULL DEFAULT false,
    -- After this it is of no use to anybody, and not sent any more.
    ADD COLUMN expires_at timestamptz,
    -- All rows there are have 1, which nobody has to look through them for.
    ADD CONSTRAINT sends_units_check CHECK (units >= 1) NOT VALID;

ALTER TABLE channel_accounts
    -- Whether its app has the feature by which a person may answer for seven days.
    ADD COLUMN human_agent boolean NOT NULL DEFAULT false,
    -- How a gateway is called, as domain words say; no secrets.
    ADD COLUMN gateway jsonb,
    -- Since when and how often it has been tried whether it is back; when the next try is.
    ADD COLUMN probes int NOT NULL DEFAULT 0,
    ADD COLUMN probe_at timestamptz;

-- A gateway's channel is told by its account's id, as at Twilio; domain::channel::Channel::of_account says the same.
ALTER TABLE channel_accounts
    DROP COLUMN channel,
    ADD COLUMN channel text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN provider NOT IN ('twilio', 'gateway') THEN provider
            WHEN starts_with(external_id, 'whatsapp:') THEN 'whatsapp'
            ELSE 'sms'
        END
    ) STORED;

ALTER TABLE limits
    DROP CONSTRAINT limits_scope_check,
    -- account: what is sent a second, key is the account. heavy: films and recordings a second, key is the account. pair: messages a second to
    -- one person, key is the account. portfolio: people reached outside their window in any 24 hours, key is the portfolio.
    -- provider_account: messages a second of all accounts of a portfolio together (Twilio's account), key is the portfolio.
    ADD CONSTRAINT limits_scope_check CHECK (scope IN ('account', 'heavy', 'pair', 'portfolio', 'provider_account'));

-- How a contact is reached from an account: what the provider itself calls them first, since it may differ from the number dialled
-- (Brazil, Mexico, Argentina). A number comes before a user id, which some of WhatsApp's templates cannot be sent to (131062).
CREATE FUNCTION address_of(of_tenant uuid, of_contact uuid, from_account uuid, on_channel text)
RETURNS TABLE (kind text, address text)
LANGUAGE sql STABLE
AS $$
    SELECT found.kind, found.address
    FROM (
        SELECT
            CASE a.kind
                WHEN 'whatsapp_bsuid' THEN 'bsuid' WHEN 'messenger_id' THEN 'psid' WHEN 'messenger_user_ref' THEN 'user_ref'
                WHEN 'instagram_id' THEN 'igsid' WHEN 'sms_address' THEN 'address' ELSE 'phone'
            END,
            CASE a.kind WHEN 'whatsapp_id' THEN '+' || a.value ELSE a.value END,
            CASE a.kind
                WHEN 'whatsapp_id' THEN 1 WHEN 'phone' THEN 3 WHEN 'whatsapp_bsuid' THEN 4 WHEN 'sms_address' THEN 4 WHEN 'messenger_user_ref' THEN 5
                ELSE CASE WHEN a.channel_account_id = from_account THEN 1 ELSE 2 END
            END,
            a.created_at
        FROM contact_aliases a
        WHERE a.tenant_id = of_tenant AND a.contact_id = of_contact
            AND a.kind = ANY (CASE on_channel
                WHEN 'whatsapp' THEN ARRAY['whatsapp_id', 'phone', 'whatsapp_bsuid']
                WHEN 'messenger' THEN ARRAY['messenger_id', 'messenger_user_ref']
                WHEN 'instagram' THEN ARRAY['instagram_id']
                ELSE ARRAY['phone', 'sms_address']
            END)
            AND (a.channel_account_id IS NULL OR a.channel_account_id = from_account)
            -- WhatsApp's own ids of users mean nothing to a gateway, which knows numbers.
            AND (a.kind <> 'whatsapp_bsuid' OR NOT EXISTS (
                SELECT FROM channel_accounts g WHERE g.tenant_id = of_tenant AND g.id = from_account AND g.provider = 'gateway'
            ))
        UNION ALL
        SELECT 'phone', c.phone, 2, c.created_at
        FROM contacts c
        WHERE c.tenant_id = of_tenant AND c.id = of_contact AND c.phone IS NOT NULL AND on_channel IN ('whatsapp', 'sms')
    ) AS found (kind, address, rank, created_at)
    ORDER BY found.rank, found.created_at DESC
    LIMIT 1
$$;

-- How often and when what was not sent is tried again is counted for each kind of obstacle.
ALTER TABLE send_attempts ADD COLUMN class text;
ALTER TABLE tenant_settings
    -- Rules that differ from the usual ones, as domain::retrying::Policy reads them.
    ADD COLUMN retry jsonb NOT NULL DEFAULT '{}';
