// Package web is what HTTP services have in common: routes, JSON, errors, and an end that cuts nobody off.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"shop/store"
)

const bodyMax = 64 << 10

// Error is answered as {"error": text}.
type Error struct {
	Status int
	Text   string
}

func (e Error) Error() string { return e.Text }

// Request is one that has a route; ID is the number at the end of its path.
type Request struct {
	*http.Request
	ID int64
}

// Handler answers with a status and what becomes JSON (nil: nothing), or with an error.
type Handler func(Request) (int, interface{}, error)

// Routes are handlers by method and path, "GET /users/{id}".
type Routes map[string]Handler

func (routes Routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, id := r.URL.Path, int64(0)
	if cut := strings.LastIndexByte(path, '/'); cut > 0 {
		if number, err := strconv.ParseInt(path[cut+1:], 10, 64); err == nil && number > 0 {
			path, id = path[:cut]+"/{id}", number
		}
	}
	handler, ok := routes[r.Method+" "+path]
	if !ok {
		handler = func(Request) (int, interface{}, error) { return 0, nil, routes.refusal(path) }
	}
	status, value, err := handler(Request{r, id})
	if err != nil {
		status, value = failure(r, err)
	}
	if value == nil {
		w.WriteHeader(status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

func (routes Routes) refusal(path string) error {
	for route := range routes {
		if strings.HasSuffix(route, " "+path) {
			return Error{http.StatusMethodNotAllowed, "method not allowed"}
		}
	}
	return Error{http.StatusNotFound, "not found"}
}

func failure(r *http.Request, err error) (int, interface{}) {
	var said Error
	switch {
	case errors.As(err, &said):
	case store.IsAway(err):
		said = Error{http.StatusServiceUnavailable, "database is not available"}
	default:
		said = Error{http.StatusInternalServerError, "internal server error"}
	}
	if said.Status >= 500 {
		log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
	}
	return said.Status, map[string]string{"error": said.Text}
}

// Read takes the body's JSON.
func (r Request) Read(into interface{}) error {
	decoder := json.NewDecoder(http.MaxBytesReader(nil, r.Body, bodyMax))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return Error{http.StatusBadRequest, "the body is not as it should be: " + err.Error()}
	}
	return nil
}

// Text says whether somebody can read it, and how long it is.
func Text(field, text string, max int) error {
	if strings.TrimSpace(text) == "" || utf8.RuneCountInString(text) > max || strings.IndexFunc(text, unicode.IsControl) >= 0 {
		return Error{http.StatusUnprocessableEntity, fmt.Sprintf("%s must be a line of 1 to %d letters", field, max)}
	}
	return nil
}

// Serve answers on this machine's port until SIGTERM; what has begun by then is ended.
func Serve(service, port string, routes Routes) error {
	mux := http.NewServeMux()
	mux.Handle("/", Forwarding(routes))
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status": "healthy", "service": "%s"}`, service)
	})
	server := &http.Server{Addr: "127.0.0.1:" + port, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-Ended():
		return server.Shutdown(context.Background())
	}
}

// Ended is closed at SIGTERM or Ctrl-C.
func Ended() <-chan struct{} {
	ended, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	return ended.Done()
}
