printf '{"sent_to": "%s"}\n' "$CHANNEL"
