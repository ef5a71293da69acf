package common

import (
	"context"
	"database/sql"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

type checkResult struct {
	Healthy bool   `json:"healthy"`
	Message string `json:"message"`
}

// Health is `/health`: what lictor asks for its heartbeats. Whether the services that this one calls are there is lictor's `/ready`.
func Health(engine *gin.Engine, checks map[string]func() error) {
	engine.GET("/health", func(c *gin.Context) {
		status, code, results := "healthy", http.StatusOK, map[string]checkResult{}
		for name, check := range checks {
			results[name] = checkResult{true, "ok"}
			if err := check(); err != nil {
				results[name] = checkResult{false, err.Error()}
				status, code = "unhealthy", http.StatusServiceUnavailable
			}
		}
		c.JSON(code, gin.H{"status": status, "timestamp": time.Now().UTC(), "checks": results})
	})
}

// Answers is the check of a database.
func Answers(db *sql.DB) func() error {
	return func() error {
		limited, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		return db.PingContext(limited)
	}
}
