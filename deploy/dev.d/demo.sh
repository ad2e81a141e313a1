# shellcheck shell=bash disable=SC2154,SC2034
# The demo: everything from nothing, the main job on real parts, and the accounts compared in the end.

verb_demo() {
    local token status=0
    verb_up
    tenant_sync_templates
    token=$(tenant_token)
    step "The main job"
    test_export_environment "$(mijra_folder dev)"
    WHATSAPP_APP_SECRET=$whatsapp_app_secret "$MIJRA_BIN_DIR/load" demo \
        --api "http://127.0.0.1:$(port_of api)" --sandbox "http://127.0.0.1:$(port_of sandbox)" \
        --tenant "$demo_tenant" --token "$token" \
        --leave-id "$dev/demo-campaign" "$@" || status=$?
    demo_say_what_next
    return "$status"
}

demo_say_what_next() {
    cat <<NEXT

Everything keeps running. What to try next:

  export TOKEN=\$(cat ${dev/#$PWD\//}/demo-token) API=http://127.0.0.1:$(port_of api)/api/$demo_tenant
  curl -sH "Authorization: Bearer \$TOKEN" "\$API/conversations?limit=5"        # what came in
  curl -sH "Authorization: Bearer \$TOKEN" "\$API/contacts?limit=5"             # from whom
  deploy/dev mijra campaign ledger $(cat "$dev/demo-campaign" 2>/dev/null || echo ID) --tenant $demo_tenant   # who got the campaign, who not
  deploy/dev mijra queues             # depth, rates, time to clear
  deploy/dev scale outbound=3         # more workers
  deploy/dev logs outbound            # what they say
  deploy/dev psql                     # what is stored
  deploy/dev status                   # what runs, and where
  deploy/dev down                     # enough
NEXT
}
