# shellcheck shell=bash disable=SC2154,SC2034
# The demo's tenant: one WhatsApp number, the one that the sandbox has unless told otherwise, and an API token.

demo_tenant=demo
demo_phone_number_id=330000000000009 demo_business_account_id=210000000000007 demo_display_number=15557770100
demo_access_token=sandbox-token

# Safe to repeat.
tenant_ensure() {
    step "Tenant \"$demo_tenant\" with a WhatsApp number"
    mijra_run tenant create "$demo_tenant" --name "Demo" --if-missing >&2 || fail "could not create the demo's tenant"
    # The provider's access token goes the environment's way: arguments can be read by everybody on the machine.
    ACCESS_TOKEN=$demo_access_token mijra_run channel-account add whatsapp --tenant "$demo_tenant" \
        --name "Demo number" --phone-number-id "$demo_phone_number_id" \
        --business-account-id "$demo_business_account_id" --display-number "$demo_display_number" --if-missing >&2 ||
        fail "could not add the demo's WhatsApp number"
}

# So that a template that cannot be sent is refused when it is asked for. Everything else works without.
tenant_sync_templates() {
    mijra_run templates sync --tenant "$demo_tenant" >&2 || detail "the templates of the demo's number could not be fetched"
}

# tenant_token: prints an API token that works. Only its digest is stored in the database, so it is kept here; when it no
# longer works (another database, revoked), a new one is made.
tenant_token() {
    local token=""
    [[ -s $dev/demo-token ]] && token=$(<"$dev/demo-token")
    if [[ -z $token ]] || ! http_is_ok "$(port_of api)" "/api/$demo_tenant/contacts" "Authorization: Bearer $token"; then
        token=$(mijra_run token create --tenant "$demo_tenant" --name "deploy/dev") || fail "could not create a token"
        (umask 077 && printf '%s\n' "$token" >"$dev/demo-token")
    fi
    printf '%s' "$token"
}
