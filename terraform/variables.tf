# Every question that this folder asks. Only the first two have no answer of their own.

variable "my_ip_cidr" {
  description = "The one address that may reach the node, as an IPv4 /32 such as 203.0.113.7/32; ask https://checkip.amazonaws.com for yours."
  type        = string

  validation {
    condition     = can(cidrnetmask(var.my_ip_cidr)) && can(regex("/32$", var.my_ip_cidr)) && var.my_ip_cidr != "0.0.0.0/32"
    error_message = "my_ip_cidr is '${var.my_ip_cidr}', which is not one IPv4 address; write it with /32, such as 203.0.113.7/32."
  }
}

variable "repository_url" {
  description = "Where the node clones the platform from, by https."
  type        = string

  validation {
    # A token in the address would stand in the state and in the user data.
    condition     = can(regex("^https://[A-Za-z0-9.-]+(:[0-9]+)?/[A-Za-z0-9._~/-]+$", var.repository_url))
    error_message = "repository_url has to be https://HOST/PATH without a user, a token or blanks; a token belongs into the secret mlops/git-token."
  }
}

variable "repository_revision" {
  description = "The branch, tag or commit that the node runs."
  type        = string
  default     = "main"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]*$", var.repository_revision))
    error_message = "repository_revision is '${var.repository_revision}', which is no branch, tag or commit."
  }
}

variable "region" {
  description = "The region of everything."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is '${var.region}'; write one such as us-east-1."
  }
}

variable "environment" {
  description = "What the tag Environment says."
  type        = string
  default     = "dev"

  validation {
    condition     = contains(["dev", "staging", "production"], var.environment)
    error_message = "environment is '${var.environment}'; write dev, staging or production."
  }
}

variable "modules" {
  description = "The modules that run here, as their folders are called: SageMaker names and alarms follow from them."
  type        = list(string)
  default     = ["fraud_detection"]

  validation {
    condition     = length(var.modules) > 0 && alltrue([for name in var.modules : can(regex("^[a-z][a-z0-9_]{0,29}$", name))])
    error_message = "modules has to name at least one folder of modules/, such as fraud_detection."
  }
}

variable "instance_type" {
  description = "The node's machine. The stack's memory limits are made for the 8 GB of a t3.large."
  type        = string
  default     = "t3.large"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]*\\.[a-z0-9]+$", var.instance_type))
    error_message = "instance_type is '${var.instance_type}'; write one such as t3.large."
  }
}

variable "ssh_public_key" {
  description = "A public key for the user ubuntu. Without one the way in is `aws ssm start-session`."
  type        = string
  default     = null

  validation {
    condition     = var.ssh_public_key == null || can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+) [A-Za-z0-9+/=]+", var.ssh_public_key))
    error_message = "ssh_public_key has to be the line of a .pub file, such as ssh-ed25519 AAAA..."
  }
}

variable "bucket_name" {
  description = "The bucket's name, before its suffix."
  type        = string
  default     = "mlops-fraud-dev"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,40}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name is '${var.bucket_name}'; it takes 3 to 42 small letters, digits and hyphens."
  }
}

variable "bucket_suffix" {
  description = "What follows the bucket's name, such as -acme: names of buckets are taken once in the whole world."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(-[a-z0-9]{1,19})?$", var.bucket_suffix))
    error_message = "bucket_suffix is '${var.bucket_suffix}'; write a hyphen and 1 to 19 small letters or digits, such as -acme."
  }
}

variable "force_destroy" {
  description = "Whether `destroy` also takes what is in the bucket and the repositories, and forgets secrets at once."
  type        = bool
  default     = false
}

variable "full_access" {
  description = "Give the node AWS's own full-access policies for its five services, as the specification says to the letter."
  type        = bool
  default     = false
}

variable "stream_shards" {
  description = "Shards of the stream; each takes 1,000 records or 1 MB a second."
  type        = number
  default     = 1

  validation {
    condition     = var.stream_shards >= 1 && var.stream_shards <= 100 && floor(var.stream_shards) == var.stream_shards
    error_message = "stream_shards is ${var.stream_shards}; write a whole number from 1 to 100."
  }
}

variable "lambda_zip" {
  description = "The function's package, made by `make lambda`."
  type        = string
  default     = "../dist/lambda.zip"

  validation {
    condition     = fileexists(var.lambda_zip)
    error_message = "there is no file '${var.lambda_zip}'; make it with `make lambda`."
  }
}

variable "lambda_enabled" {
  description = "Whether Lambda reads the stream. Switch it on when the API answers and mlops/api-key is filled, and stop the worker then."
  type        = bool
  default     = false
}

variable "lambda_target" {
  description = "Who decides for Lambda: the node's API, or the SageMaker endpoint of the first module."
  type        = string
  default     = "api"

  validation {
    condition     = contains(["api", "sagemaker"], var.lambda_target)
    error_message = "lambda_target is '${var.lambda_target}'; write api or sagemaker."
  }
}

variable "outage_hours" {
  description = "For how long an outage of the scorer Lambda keeps trying before records go to the bucket undecided."
  type        = number
  default     = 12

  validation {
    # The stream keeps a record for 24 hours, and what is older than that nobody can try again.
    condition     = var.outage_hours >= 1 && var.outage_hours <= 20
    error_message = "outage_hours is ${var.outage_hours}; write 1 to 20, because the stream forgets after 24."
  }
}

variable "alert_email" {
  description = "Who gets the topic's messages by mail; AWS asks them to confirm. Without one only the queue hears."
  type        = string
  default     = null

  validation {
    condition     = var.alert_email == null || can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", var.alert_email))
    error_message = "alert_email has to be one address, such as ml@example.com."
  }
}

variable "sagemaker_model" {
  description = "An endpoint made by Terraform: image by digest, the version's archive, machine. It bills every hour, asked or not; null makes none."
  type = object({
    image         = string
    archive       = string
    instance_type = optional(string, "ml.t2.medium")
    environment   = optional(map(string), {})
  })
  default = null

  validation {
    condition     = var.sagemaker_model == null || can(regex("@sha256:[0-9a-f]{64}$", var.sagemaker_model.image))
    error_message = "sagemaker_model.image has to end in @sha256:DIGEST, so that what runs is what was pushed; infra/ecr_push.sh prints it."
  }

  validation {
    condition     = var.sagemaker_model == null || can(regex("^s3://[a-z0-9.-]+/.+\\.tar\\.gz$", var.sagemaker_model.archive))
    error_message = "sagemaker_model.archive has to be s3://BUCKET/KEY.tar.gz, such as a version's model.tar.gz."
  }

  validation {
    # Who may describe the model can read it, and so can who reads the state.
    condition     = var.sagemaker_model == null || alltrue([for value in values(try(var.sagemaker_model.environment, {})) : !can(regex("://[^/]*:[^/]*@", value))])
    error_message = "sagemaker_model.environment holds a password; name a secret instead: secret://NAME."
  }
}

variable "github_repository" {
  description = "OWNER/NAME of the repository on GitHub whose workflow may push images and train; null for none."
  type        = string
  default     = null

  validation {
    # A pattern would let others in.
    condition     = var.github_repository == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository has to be OWNER/NAME, such as acme/mlops-platform, with no pattern in it."
  }
}
