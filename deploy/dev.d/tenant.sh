# shellcheck shell=bash disable=SC2154,SC2034
# The demo's tenant: one WhatsApp number, the one that the sandbox has unless told otherwise, an account at each of the other
# providers, and an API token.

demo_tenant=demo
demo_phone_number_id=330000000000009 demo_business_account_id=210000000000007 demo_display_number=15557770100
demo_access_token=sandbox-token
demo_page_id=100900000000001 demo_instagram_id=17841400000000055
demo_twilio_account=AC00000000000000000000000000000001
demo_sms_sender=+15035550199 demo_twilio_whatsapp_sender=whatsapp:+15035550198

# Safe to repeat.
tenant_ensure() {
    step "Tenant \"$demo_tenant\" with an account at every provider"
    mijra_run tenant create "$demo_tenant" --name "Demo" --if-missing >&2 || fail "could not create the demo's tenant"
    # The provider's access token goes the environment's way: arguments can be read by everybody on the machine.
    ACCESS_TOKEN=$demo_access_token mijra_run channel-account add whatsapp --tenant "$demo_tenant" \
        --name "Demo number" --phone-number-id "$demo_phone_number_id" \
        --business-account-id "$demo_business_account_id" --display-number "$demo_display_number" --if-missing >&2 ||
        fail "could not add the demo's WhatsApp number"
    tenant_add messenger --name "Demo Page" --page-id "$demo_page_id"
    tenant_add instagram --name "Demo profile" --account-id "$demo_instagram_id" --login page
    tenant_add twilio --name "Demo text messages" --sender "$demo_sms_sender" --account-sid "$demo_twilio_account"
    tenant_add twilio --name "Demo WhatsApp by Twilio" --sender "$demo_twilio_whatsapp_sender" --account-sid "$demo_twilio_account"
}

# tenant_add PROVIDER ARGS: an account of the demo's tenant, unless it is there.
tenant_add() {
    local provider=$1
    shift
    ACCESS_TOKEN=$demo_access_token mijra_run channel-account add "$provider" --tenant "$demo_tenant" "$@" --if-missing >&2 ||
        fail "could not add the demo's account at $provider"
}

# The same accounts as the sandbox has to know them. It signs for all with the secret that it has anyway.
tenant_sandbox_accounts() {
    local account accounts=()
    for account in "messenger $demo_page_id" "instagram $demo_instagram_id" "twilio $demo_sms_sender" "twilio $demo_twilio_whatsapp_sender"; do
        accounts+=("{\"platform\":\"${account%% *}\",\"id\":\"${account#* }\"}")
    done
    (IFS=, && printf '[%s]' "${accounts[*]}")
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
