-- How a webhook finds its tenant: by the provider's id of the account, or by the key in its URL.
CREATE TABLE control.channel_routes (
    provider text NOT NULL,
    -- phone_number_id, business_account_id …: the same digits may name different things.
    kind text NOT NULL,
    external_id text NOT NULL,
    tenant_id uuid NOT NULL REFERENCES control.tenants,
    channel_account_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider, kind, external_id, channel_account_id)
);
-- A number has one owner; a business account may hold several numbers of one tenant.
CREATE UNIQUE INDEX channel_routes_number_key ON control.channel_routes (provider, external_id) WHERE kind = 'phone_number_id';

CREATE TABLE control.webhook_endpoints (
    key text PRIMARY KEY CHECK (length(key) BETWEEN 16 AND 64),
    provider text NOT NULL,
    tenant_id uuid NOT NULL REFERENCES control.tenants,
    channel_account_id uuid NOT NULL,
    -- Sealed: {"app_secret": …, "verify_token": …}
    sealed_secrets bytea NOT NULL,
    secret_key_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Isolated like a tenant's tables. The receiver and the workers, which must route before they know the tenant, ask the
-- functions below: they answer only who already knows the external id or the key.
DO $$
DECLARE
    target text;
BEGIN
    FOREACH target IN ARRAY ARRAY['control.channel_routes', 'control.webhook_endpoints'] LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', target);
        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', target);
        EXECUTE format('CREATE POLICY functions ON %s TO CURRENT_USER USING (true)', target);
        EXECUTE format($policy$
            CREATE POLICY tenants_of_batch ON %s TO mijra_worker
            USING (tenant_id = ANY (COALESCE((SELECT NULLIF(current_setting('app.tenant_ids', true), '')::uuid[]), '{}')))
        $policy$, target);
    END LOOP;
END $$;
GRANT SELECT ON control.channel_routes, control.webhook_endpoints TO mijra_worker;
GRANT INSERT, UPDATE, DELETE ON control.channel_routes, control.webhook_endpoints TO mijra_operator;

CREATE FUNCTION control.find_routes(of_provider text, kinds text[], external_ids text[])
RETURNS TABLE (kind text, external_id text, tenant_id uuid, channel_account_id uuid, placement text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = control AS $$
    SELECT r.kind, r.external_id, r.tenant_id, r.channel_account_id, t.placement
    FROM unnest(kinds, external_ids) AS wanted (kind, external_id)
    JOIN channel_routes r ON r.provider = of_provider AND r.kind = wanted.kind AND r.external_id = wanted.external_id
    JOIN tenants t ON t.id = r.tenant_id
    ORDER BY r.created_at, r.channel_account_id
$$;

CREATE FUNCTION control.find_endpoint(of_key text)
RETURNS TABLE (provider text, tenant_id uuid, channel_account_id uuid, sealed_secrets bytea, secret_key_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = control AS $$
    SELECT provider, tenant_id, channel_account_id, sealed_secrets, secret_key_id
    FROM webhook_endpoints
    WHERE key = of_key
$$;
REVOKE ALL ON FUNCTION control.find_routes(text, text[], text[]), control.find_endpoint(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.find_routes(text, text[], text[]), control.find_endpoint(text) TO mijra_api, mijra_worker;
