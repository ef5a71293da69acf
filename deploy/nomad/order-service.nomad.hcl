# A group whose tasks share a network namespace: the sidecar starts before the application and stays while it runs.
job "order-service" {
  type = "service"

  group "order-service" {
    count = 2

    network {
      mode = "bridge"
      # -1: the same number within the namespace as outside, so that what is registered is what listens.
      port "http" { to = -1 }
      port "lictor" { to = -1 }
    }

    task "lictor" {
      driver = "docker"
      lifecycle {
        hook    = "prestart"
        sidecar = true
      }
      # drain_delay + drain_timeout + kill_after, and a little
      kill_timeout = "50s"

      config {
        image           = "lictor:latest"
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        volumes         = ["local/lictor.yaml:/etc/lictor/lictor.yaml:ro"]
      }

      env {
        CONSUL_HTTP_ADDR  = "http://${attr.unique.network.ip-address}:8500"
        TERMINATION_GRACE = "50"
      }

      # lictor registers the address and port that Nomad published on the host, and not Nomad: no `service` block.
      template {
        destination = "local/lictor.yaml"
        data        = <<-YAML
          service: order-service
          app: {port: {{ env "NOMAD_PORT_http" }}}
          registration:
            id: order-service-{{ env "NOMAD_ALLOC_ID" }}
            address: {{ env "NOMAD_HOST_IP_http" }}
            meta: {metrics_port: "{{ env "NOMAD_PORT_lictor" }}"}
            checks: [{ttl: 30s}]
          upstreams:
            user-service: 3001
            product-service: 3002
          admin: {public: "0.0.0.0:{{ env "NOMAD_PORT_lictor" }}"}
        YAML
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }

    task "order-service" {
      driver = "docker"
      config { image = "order-service:latest" }
      # It listens on every interface of the namespace, at PORT.
      env {
        PORT                = "${NOMAD_PORT_http}"
        USER_SERVICE_URL    = "http://127.0.0.1:3001"
        PRODUCT_SERVICE_URL = "http://127.0.0.1:3002"
      }
    }
  }
}
