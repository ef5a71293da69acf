package common

import (
	"context"
	"io"
	"net/http"
)

// own asks our lictor itself, which has building blocks for us: locks and sagas.
func own(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, Variable("LICTOR_ADDR")+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+Variable("LICTOR_TOKEN"))
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	return http.DefaultClient.Do(request) // without a limit: a lock is a request that stays open
}
