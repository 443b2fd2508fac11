# A team's file.
variable "REGISTRY" { default = "ghcr.io/acme" }
variable "VERSION" {
  default     = "1.4.2"
  description = "what is released"
  validation {
    condition     = regexall("^[0-9]+\\.[0-9]+\\.[0-9]+$", VERSION) != []
    error_message = "VERSION must be X.Y.Z, not ${VERSION}."
  }
}
variable "PUSH_LATEST" { default = true }
variable "PLATFORMS" {
  type    = list(string)
  default = ["linux/amd64", "linux/arm64"]
}
variable "EMPTY" {}

major = split(".", VERSION)[0]
labels = {
  "org.opencontainers.image.version" = VERSION
  "org.opencontainers.image.vendor"  = "ACME"
}

function "tags_of" {
  params          = [name]
  variadic_params = more
  result = concat(
    ["${REGISTRY}/${name}:${VERSION}", "${REGISTRY}/${name}:${major}"],
    PUSH_LATEST ? ["${REGISTRY}/${name}:latest"] : [],
    [for tag in more : "${REGISTRY}/${name}:${tag}" if tag != ""],
  )
}

group "default" {
  description = "what CI builds"
  targets     = ["app", "services"]
}
group "services" { targets = ["service"] }

target "_common" {
  context   = "."
  labels    = labels
  platforms = PLATFORMS
  args = {
    VERSION = VERSION
    DEBUG   = null
    JOBS    = 4 * 2
  }
}

target "base" {
  inherits   = ["_common"]
  dockerfile = "docker/base.Dockerfile"
  tags       = tags_of("base")
}

target "app" {
  inherits = ["_common"]
  contexts = {
    base = "target:base"
    docs = "./docs"
    alpine = "docker-image://alpine:3.20"
  }
  target = "runtime"
  tags   = tags_of("app", EMPTY, "edge")
  args = {
    BASE_TAG = target.base.tags[0]
    NOTES = <<-EOT
      version ${VERSION}
        %{ for p in PLATFORMS ~}
      - ${p}
      %{ endfor ~}
      done
    EOT
  }
  no-cache-filter = ["deps"]
}

target "service" {
  name     = "service-${item.name}-py${replace(py, ".", "")}"
  inherits = ["_common"]
  matrix = {
    py   = ["3.11", "3.12"]
    item = [
      { name = "web", port = 80 },
      { name = "jobs", port = null },
    ]
  }
  context    = "services/${item.name}"
  args       = { PYTHON = py, PORT = item.port }
  tags       = [format("%s/%s:%s-py%s", REGISTRY, item.name, VERSION, py)]
  platforms  = ["linux/amd64"]
  cache-from = ["type=registry,ref=${REGISTRY}/cache:${item.name}"]
}

target "test" {
  inherits = ["app"]
  target   = "test"
  output   = ["type=local,dest=out/test"]
  dockerfile-inline = <<EOT
FROM base
RUN echo "$${HOME}"
EOT
}
