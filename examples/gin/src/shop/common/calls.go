package common

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// What belongs to the request that is being answered, and goes along with the calls that are made for it.
var forwarded = []string{"Traceparent", "Tracestate", "X-Request-Id", "X-Request-Timeout-Ms", "X-Lictor-Attempt"}

type headersKey struct{}

// incoming keeps the request's headers in its context.
func incoming(c *gin.Context) {
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), headersKey{}, c.Request.Header))
	c.Next()
}

func outgoing(ctx context.Context, set func(name, value string)) {
	from, _ := ctx.Value(headersKey{}).(http.Header)
	for _, name := range forwarded {
		if value := from.Get(name); value != "" {
			set(name, value)
		}
	}
}

// Detached is for what is done for a request though nobody waits for its answer any more.
func Detached(ctx context.Context) context.Context {
	return context.WithValue(context.Background(), headersKey{}, ctx.Value(headersKey{}))
}

var client = &http.Client{Timeout: 12 * time.Second} // lictor's own is 10 s

// Call asks a service, at the address that lictor has for it. What is not 200 is a Failure: the service's own, or that it is not there.
func Call(ctx context.Context, method, service, path string, body, answer interface{}) error {
	url := os.Getenv(variable(service)+"_URL") + path
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, content)
	if err != nil {
		return err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	outgoing(ctx, request.Header.Set)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return json.NewDecoder(response.Body).Decode(answer)
	}
	var told struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(response.Body).Decode(&told) == nil && told.Error != "" && response.StatusCode < 500 {
		return Fail(response.StatusCode, told.Error)
	}
	return Fail(http.StatusServiceUnavailable, "service unavailable")
}

// Connect is a connection for gRPC: one, to lictor, which balances each call.
func Connect(upstream string) *grpc.ClientConn {
	connection, err := grpc.Dial(Address(upstream), grpc.WithInsecure(), grpc.WithUnaryInterceptor(
		func(ctx context.Context, method string, asked, answer interface{}, c *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			outgoing(ctx, func(name, value string) { ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value) })
			limited, cancel := context.WithTimeout(ctx, 12*time.Second)
			defer cancel()
			return invoke(limited, method, asked, answer, c, append(options, grpc.WaitForReady(true))...)
		}))
	if err != nil {
		log.Fatal(err)
	}
	return connection
}
