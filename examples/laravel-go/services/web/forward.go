package web

import (
	"context"
	"net/http"
)

// What belongs to the request that is being answered, and goes along with the calls that are made for it.
var forwarded = []string{"Traceparent", "Tracestate", "X-Request-Id", "X-Request-Timeout-Ms", "X-Lictor-Attempt"}

type headersKey struct{}

// Forwarding keeps them in the request's context.
func Forwarding(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), headersKey{}, r.Header)))
	})
}

// Forwarded are their names and values, in turn.
func Forwarded(ctx context.Context) []string {
	headers, _ := ctx.Value(headersKey{}).(http.Header)
	var pairs []string
	for _, name := range forwarded {
		if value := headers.Get(name); value != "" {
			pairs = append(pairs, name, value)
		}
	}
	return pairs
}
