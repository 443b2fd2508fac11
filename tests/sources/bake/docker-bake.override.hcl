variable "REGISTRY" { default = "localhost:5000/acme" }
group "default" { targets = ["app"] }
target "app" {
  args = { EXTRA = upper("x") }
  tags = ["over/app"]
  platforms = []
}
