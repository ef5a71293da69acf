// Package common is what the services of the shop share: how one starts and answers, its tables, cache, messages and calls.
// Who finds, calls and protects services is lictor.
package common

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gin-gonic/gin/binding"
	"github.com/go-playground/validator/v10"
	"github.com/lib/pq"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
)

// Failure is an answer other than what was asked for: {"error": Text}.
type Failure struct {
	Status int
	Text   string
}

func (f Failure) Error() string { return f.Text }

// Fail is a Failure.
func Fail(status int, text string) error { return Failure{status, text} }

// Handler answers what it returns: a value as JSON, or why there is none.
type Handler func(c *gin.Context) (interface{}, error)

// Answer is a Handler as Gin has them.
func Answer(status int, handler Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		value, err := handler(c)
		if err == nil {
			c.JSON(status, value)
			return
		}
		failure := failed(err)
		if failure.Status >= 500 {
			log.Printf("%s %s: %v", c.Request.Method, c.FullPath(), err)
		}
		c.JSON(failure.Status, gin.H{"error": failure.Text})
	}
}

func failed(err error) Failure {
	var failure Failure
	var refused *pq.Error
	var broken net.Error
	switch {
	case errors.As(err, &failure):
		return failure
	case errors.Is(err, sql.ErrNoRows):
		return Failure{http.StatusNotFound, "not found"}
	case errors.As(err, &refused) && refused.Code.Class() == "22": // what no table can hold, such as NUL
		return Failure{http.StatusBadRequest, "invalid request"}
	case errors.As(err, &refused) && strings.Contains("08 53 57", string(refused.Code.Class())),
		errors.As(err, &broken), errors.Is(err, io.EOF), errors.Is(err, driver.ErrBadConn):
		return Failure{http.StatusServiceUnavailable, "service unavailable"}
	default:
		return Failure{http.StatusInternalServerError, "internal server error"}
	}
}

// Read is the request's JSON, if it is as its tags say.
func Read(c *gin.Context, value interface{}) error {
	err := c.ShouldBindJSON(value)
	var wrong validator.ValidationErrors
	if errors.As(err, &wrong) {
		fields := make([]string, len(wrong))
		for i, field := range wrong {
			fields[i] = field.Field()
		}
		return Failure{http.StatusBadRequest, "invalid " + strings.Join(fields, ", ")}
	}
	if err != nil {
		return Failure{http.StatusBadRequest, "invalid request"}
	}
	return nil
}

// ID is the number in the request's path.
func ID(c *gin.Context) (int64, error) {
	id, err := strconv.ParseInt(c.Param("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, Failure{http.StatusNotFound, "not found"}
	}
	return id, nil
}

// Caller is who asks, as the gateway says: services are asked by nobody else.
func Caller(c *gin.Context) (id int64, role string, err error) {
	id, err = strconv.ParseInt(c.GetHeader("X-User-ID"), 10, 64)
	if err != nil {
		return 0, "", Failure{http.StatusUnauthorized, "missing token"}
	}
	return id, c.GetHeader("X-User-Role"), nil
}

// Engine is Gin without a log of its own and without trust in what clients say of their address.
func Engine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	if v, ok := binding.Validator.Engine().(*validator.Validate); ok {
		v.RegisterTagNameFunc(func(field reflect.StructField) string { return strings.Split(field.Tag.Get("json"), ",")[0] })
	}
	engine := gin.New()
	engine.HandleMethodNotAllowed = true
	if err := engine.SetTrustedProxies(nil); err != nil {
		log.Fatal(err)
	}
	engine.Use(gin.Recovery(), incoming)
	return engine
}

// stopping is over when we are asked to stop; leaving is what is done then.
var stopping, _ = signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
var leaving sync.WaitGroup

// Serve answers on PORT until SIGTERM: HTTP, and gRPC where there is some. What runs then is finished.
func Serve(engine *gin.Engine, rpc *grpc.Server) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rpc != nil && r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			rpc.ServeHTTP(w, r)
		} else {
			engine.ServeHTTP(w, r)
		}
	})
	multiplexed := &http2.Server{MaxConcurrentStreams: 250}
	server := &http.Server{
		Addr: "127.0.0.1:" + os.Getenv("PORT"), Handler: h2c.NewHandler(handler, multiplexed), ReadHeaderTimeout: 10 * time.Second,
	}
	if err := http2.ConfigureServer(server, multiplexed); err != nil {
		log.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		<-stopping.Done()
		limited, cancel := context.WithTimeout(context.Background(), 9*time.Second)
		defer cancel()
		if err := server.Shutdown(limited); err != nil {
			log.Print(err)
		}
		close(over)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-over
	leaving.Wait()
}

// Variable is an environment variable with those in it replaced: DB_URL names POSTGRES_HOST, which lictor gives.
func Variable(name string) string {
	value := os.ExpandEnv(os.Getenv(name))
	if value == "" {
		log.Fatalf("%s is not set", name)
	}
	return value
}

// Address is where lictor has a store or service for us: host and port.
func Address(upstream string) string {
	return Variable(variable(upstream)+"_HOST") + ":" + Variable(variable(upstream)+"_PORT")
}

func variable(upstream string) string { return strings.ToUpper(strings.ReplaceAll(upstream, "-", "_")) }
